"""Online against offline training of one study, arm by arm: see docs/comparing.md."""
