"""report.html: pages of finished runs, made of their files."""
