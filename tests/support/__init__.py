"""The test bed: targets that check themselves, accounts, process state and the killer."""
