"""What is wrong with a collection: copies, leaks between sides, doubtful labels, strangers."""
