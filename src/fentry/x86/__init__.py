"""fentry.x86"""
