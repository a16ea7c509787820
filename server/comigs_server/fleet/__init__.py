"""The clients as the server sees them: who they are, what they are asked, what is taken."""
