"""What people look at: pages, overlays, and the paper's tables beside what was measured."""
