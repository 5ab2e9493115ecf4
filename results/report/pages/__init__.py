"""What a report says on its pages, Markdown and HTML: what came out first, then tables, figures and where numbers come from."""
