"""The table of commands, in the order in which ``--help`` lists them."""

COMMANDS = {
    name: f"lineproof.commands.{name}:{name}"
    for name in (
        "train", "export", "calibrate", "verify", "profile", "run", "evaluate", "compare", "badcases", "inspect",
        "doctor", "models", "sample", "demo",
    )
}  # fmt: skip
