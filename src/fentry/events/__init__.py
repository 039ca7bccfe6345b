"""fentry.events"""
