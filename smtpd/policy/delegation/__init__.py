"""Postfix's policy delegation: services that say what to do by one line of text (SMTPD_POLICY_README)."""
