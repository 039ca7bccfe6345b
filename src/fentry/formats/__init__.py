"""fentry.formats"""
