"""What `pdf_reports.py` needs: downloading, reading in a process of its own, and the steps from a page to a document."""
