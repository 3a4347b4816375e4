"""Jobs on a Kubernetes cluster, through the official client."""
