"""Who may administer what: roles, principals, sessions."""
