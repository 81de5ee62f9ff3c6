"""The pages of whoever administers: `/admin`, rendered here, with little JavaScript."""
