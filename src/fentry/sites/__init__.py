"""fentry.sites"""
