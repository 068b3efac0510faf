"""The web page, the decoder in the browser, and the static site of both."""
