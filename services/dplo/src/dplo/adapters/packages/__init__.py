"""Where packages come from: the package service, or a directory of archives."""
