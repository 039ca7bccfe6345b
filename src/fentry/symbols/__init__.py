"""fentry.symbols"""
