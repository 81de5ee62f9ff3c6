"""What whoever administers can do, by the API or in a browser: who they are, and what they may."""
