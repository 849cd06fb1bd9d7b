"""The scene in MuJoCo's own format: a table, a stand, cubes, a gantry arm with a two-finger hand, three cameras.

World axes: x to the right, y away from the base camera, z up from the table top; metres. Only boxes and cylinders, no
textures, no shadows: two pictures of 64 pixels take two to three milliseconds in software.
"""

COLORS = {
    "red": (0.86, 0.08, 0.08),
    "green": (0.08, 0.62, 0.12),
    "blue": (0.08, 0.18, 0.90),
    "yellow": (0.98, 0.86, 0.08),
    "magenta": (0.88, 0.12, 0.80),
    "cyan": (0.08, 0.80, 0.86),
    "orange": (1.00, 0.45, 0.02),
    "white": (1.00, 1.00, 1.00),
    "black": (0.03, 0.03, 0.03),
}
CUBE = 0.05  # edge
REACH = 0.18  # the fingertip moves within |x|, |y| <= REACH
STAND = (0.0, 0.275)  # centre of the stand, out of the arm's reach
STAND_HEIGHT = 0.03
ROW, ROW_Y = (-0.23, -0.155, -0.08, 0.08, 0.155, 0.23), 0.33  # places of the row's cubes, beside the stand
BELT = (-0.30, 0.18)  # ends of the belt along x, metres
BELT_END = 0.155  # where the centre of what rides on it is when it tips over the end
TUNNEL = (-0.12, 0.04)  # ends of the tunnel along x
MEET = 0.086  # from here on the fingers have room between the tunnel and what comes out of it
CRUISE = 0.13  # height of the fingertip at which the arm travels
STROKE = 0.035  # travel of one finger
CONTROL_HZ = 20
SUBSTEPS = 20
HIDDEN = (0.0, 0.0, -5.0)  # below the floor
TABLE_RGBA = "0.44 0.41 0.38 1"
ARM_RGBA = "0.66 0.68 0.72 1"
DARK_RGBA = "0.30 0.31 0.34 1"


def mjcf(picture: int, extra: str = "") -> str:
    """The scene as MJCF; `picture` is the largest side, in pixels, that will be rendered, `extra` what else is there.

    What a family alone needs is `extra`, so that it leaves no trace, not even of rounding, in the pictures of others.
    """
    cubes = "".join(_cube(f"cube-{name}", rgb, touchable=True) for name, rgb in COLORS.items())
    return f"""
<mujoco model="tabletop">
  <option timestep="{1 / CONTROL_HZ / SUBSTEPS}" integrator="implicitfast"/>
  <visual>
    <global offwidth="{picture}" offheight="{picture}"/>
    <quality offsamples="0" shadowsize="0"/>
    <headlight ambient="0.42 0.42 0.42" diffuse="0.18 0.18 0.18" specular="0 0 0"/>
    <map znear="0.02" zfar="20"/>
  </visual>
  <default>
    <geom contype="0" conaffinity="0" mass="0.01"/>
    <joint armature="1" damping="0"/>
    <default class="touch"><geom contype="1" rgba="{DARK_RGBA}"/></default>
    <default class="turn"><joint type="hinge" armature="0.01"/></default>
    <default class="finger"><joint type="slide" armature="0.1"/></default>
    <position kp="40000" dampratio="1"/>
  </default>
  <worldbody>
    <light directional="true" castshadow="false" pos="0 0 2" dir="0.35 0.5 -1" diffuse="0.5 0.5 0.5" specular="0 0 0"/>
    <geom name="floor" type="plane" size="4 4 1" pos="0 0 -0.5" rgba="0.25 0.27 0.30 1"/>
    <geom name="table" type="box" size="0.4 0.42 0.02" pos="0 0.08 -0.02" rgba="{TABLE_RGBA}"/>
    <geom name="stand" type="box" size="0.04 0.04 {STAND_HEIGHT / 2}" pos="{STAND[0]} {STAND[1]} {STAND_HEIGHT / 2}"
          rgba="0.30 0.22 0.16 1"/>
    <camera name="base" pos="0 -0.50 0.80" xyaxes="1 0 0 0 0.82 0.5724" fovy="29"/>
    <camera name="human" pos="-0.42 -0.66 0.62" xyaxes="0.844 -0.537 0 0.312 0.490 0.814" fovy="44"/>
    {cubes}
    {_cube("cue", (1.0, 1.0, 1.0), touchable=False)}
    {_arm()}{extra}
  </worldbody>
  <actuator>
    <position joint="x"/> <position joint="y"/> <position joint="z"/>
    <position joint="roll" kp="400"/> <position joint="pitch" kp="400"/> <position joint="yaw" kp="400"/>
    <position joint="left" kp="4000"/> <position joint="right" kp="4000"/>
  </actuator>
</mujoco>"""


def row(count: int) -> str:
    """Cubes that show, in a row along the far side, what is left to do; hidden until they are placed."""
    return "".join(_cube(f"row-{i}", (1.0, 1.0, 1.0), touchable=False) for i in range(count))


def row_places(count: int) -> list[tuple[float, float, float]]:
    """Centres of the cubes of a row, from left to right, metres: as many left of the stand as right, or one more."""
    first = (len(ROW) - count) // 2
    return [(x, ROW_Y, CUBE / 2) for x in ROW[first : first + count]]


def conveyor(tunnel: bool) -> str:
    """A belt along x that hands go through, with or without an opaque tunnel around its middle, which they do not."""
    belt = f"""
    <geom name="belt" type="box" size="{(BELT[1] - BELT[0]) / 2} 0.165 0.001" pos="{sum(BELT) / 2} 0 0"
          rgba="0.20 0.21 0.24 1"/>"""
    roof = f"""
    <geom name="tunnel" type="box" size="{(TUNNEL[1] - TUNNEL[0]) / 2} 0.165 0.03" pos="{sum(TUNNEL) / 2} 0 0.03"
          conaffinity="1" rgba="0.50 0.52 0.47 1"/>"""
    return belt + roof * tunnel


def _cube(name: str, rgb: tuple[float, float, float], touchable: bool) -> str:
    red, green, blue = rgb
    return f"""
    <body name="{name}" mocap="true" pos="{HIDDEN[0]} {HIDDEN[1]} {HIDDEN[2]}">
      <geom name="{name}" type="box" size="{CUBE / 2} {CUBE / 2} {CUBE / 2}" rgba="{red} {green} {blue} 1"
            conaffinity="{int(touchable)}"/>
    </body>"""


def _arm() -> str:
    """Slides carry a column, three hinges turn the hand about the fingertip point, two fingers slide.

    The origin of `column` is the fingertip point, so the joint positions are the pose of the fingertip.
    """
    return f"""
    <body name="column" gravcomp="1">
      <joint name="x" type="slide" axis="1 0 0"/>
      <joint name="y" type="slide" axis="0 1 0"/>
      <joint name="z" type="slide" axis="0 0 1"/>
      <geom type="box" size="0.008 0.008 0.37" pos="0 0 0.51" rgba="{ARM_RGBA}"/>
      <geom type="box" size="0.5 0.012 0.012" pos="0 0 0.89" rgba="{DARK_RGBA}"/>
      <geom type="cylinder" size="0.016 0.014" pos="0 0 0.135" rgba="{DARK_RGBA}"/>
      <body name="hand" gravcomp="1">
        <joint name="roll" class="turn" axis="1 0 0"/>
        <joint name="pitch" class="turn" axis="0 1 0"/>
        <joint name="yaw" class="turn" axis="0 0 1"/>
        <geom name="wrist" class="touch" type="box" size="0.009 0.009 0.025" pos="0 0 0.105" rgba="{ARM_RGBA}"/>
        <geom name="palm" class="touch" type="box" size="0.036 0.010 0.008" pos="0 0 0.078"/>
        <camera name="wrist" pos="0 -0.045 0.15" xyaxes="1 0 0 0 0.9578 0.2873" fovy="52"/>
        <body name="left" gravcomp="1">
          <joint name="left" class="finger" axis="-1 0 0"/>
          <geom name="left" class="touch" type="box" size="0.004 0.007 0.037" pos="-0.004 0 0.037"/>
        </body>
        <body name="right" gravcomp="1">
          <joint name="right" class="finger" axis="1 0 0"/>
          <geom name="right" class="touch" type="box" size="0.004 0.007 0.037" pos="0.004 0 0.037"/>
        </body>
      </body>
    </body>"""
