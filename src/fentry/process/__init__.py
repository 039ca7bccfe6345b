"""fentry.process"""
