"""Starting points of plugins: working files that ``nas-meta space new``, ``strategy new`` and ``learner new`` write."""
