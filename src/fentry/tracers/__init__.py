"""fentry.tracers"""
