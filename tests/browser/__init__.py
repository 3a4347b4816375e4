"""The pages of `alto ui` in headless Chromium, used by clicks as a person uses them."""
