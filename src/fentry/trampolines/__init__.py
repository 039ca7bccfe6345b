"""fentry.trampolines"""
