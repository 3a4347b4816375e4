"""The networks as their authors published them, so that their weights can be used here."""
