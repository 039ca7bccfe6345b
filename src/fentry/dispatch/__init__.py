"""fentry.dispatch"""
