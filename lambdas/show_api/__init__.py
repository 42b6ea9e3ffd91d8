"""Shows the API's OpenAPI document as a page."""
