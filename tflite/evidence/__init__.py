"""What proves or explains a file: accuracy, layer errors, golden outputs, lint, preflight."""
