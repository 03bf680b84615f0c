"""The programs we are compared with, each as its users have it and with its best settings."""
