"""What everything else stands on: plugins and their options, objectives, untrusted files, signals."""
