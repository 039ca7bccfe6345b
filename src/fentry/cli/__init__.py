"""fentry.cli"""
