"""What fentry promises, each as a function that counts; `python -m tests.promises` runs them."""
