"""fentry.live"""
