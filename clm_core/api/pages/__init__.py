"""Pages for people: sessions by cookie, forms, and the rendering of the templates."""
