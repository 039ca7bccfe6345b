"""fentry.region"""
