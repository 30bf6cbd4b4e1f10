"""``gfsclient``: the user's command. One file per subcommand; ``docs/cli.md`` is the contract."""
