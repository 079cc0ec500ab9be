"""What `pdf_reports.py` needs: downloading, reading in a process of its own, the steps from page to document."""
