"""Promotion: a challenger becomes champion only where the rules of `params.yaml` say it is better."""
