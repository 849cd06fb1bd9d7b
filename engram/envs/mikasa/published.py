"""Success rates that papers report for MIKASA-Robo-VLA: to be shown beside ours, never counted as ours.

Source: muVLA (arXiv 2606.12497), group means of its Table 1, and per task what is known of them, for its best setting
(m=64, K=2; 7 billion parameters, GPU simulator, mani_skill 3.0.0b15, 250 demonstrations a task by an RL oracle).
"""

GROUP_MEANS = {
    "muVLA (7B)": {"train": 0.84, "matched": 0.23, "novel": 0.16},
    "first frame (7B)": {"train": 0.85, "matched": 0.24, "novel": 0.19},
    "memoryless (7B)": {"train": 0.42, "matched": 0.01, "novel": 0.01},
}
MU_VLA = {
    "ShellGamePush": 0.96,
    "InterceptMedium": 0.55,
    "RememberColor5": 0.93,
    "TakeItBack": 0.99,
    "RememberShapeAndColor3x3": 0.76,
    "RememberColor3": 0.92,
    "RememberColor9": 0.41,
    "RememberShapeAndColor3x2": 0.59,
    "ShellGameTouch": 0.0,
    "ShellGamePick": 0.0,
}
