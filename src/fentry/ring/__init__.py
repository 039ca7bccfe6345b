"""fentry.ring"""
