"""Success rates that are known of papers on MIKASA-Robo-VLA: to be shown beside ours, never counted as ours.

Source: specs/mu_vla.md 2.1 and 2.2, on muVLA (arXiv 2606.12497), m=64 and K=2: 7 billion parameters, GPU simulator,
mani_skill 3.0.0b15, 250 demonstrations a task by an RL oracle. Its table of tasks was not at hand: most rates of single
tasks are second-hand, and one is calculated from the group's mean.
"""

REFERENCE = "muVLA (7B)"
GROUP_MEANS = {
    REFERENCE: {"train": 0.84, "matched": 0.23, "novel": 0.16},
    "first frame (7B)": {"train": 0.85, "matched": 0.24, "novel": 0.19},
    "memoryless (7B)": {"train": 0.42, "matched": 0.01, "novel": 0.01},
}
NOTES, BOARD, ABOUT = "second-hand notes", "public leaderboard", "second-hand notes, about"
MU_VLA = {
    "ShellGamePush": (0.96, ABOUT),
    "InterceptMedium": (0.55, ABOUT),
    "RememberColor5": (0.93, NOTES),
    "TakeItBack": (0.99, NOTES),
    "RememberShapeAndColor3x3": (0.76, "calculated from the group, +-0.03"),
    "RememberColor3": (0.92, NOTES),
    "RememberColor9": (0.41, BOARD),
    "RememberShapeAndColor3x2": (0.59, NOTES),
    "ShellGameTouch": (0.0, NOTES),
    "ShellGamePick": (0.0, NOTES),
}
