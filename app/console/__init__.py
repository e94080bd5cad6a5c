"""The console at /console for people: server-rendered pages that read and act as the API does.

How a page is made:

- A page is a module with `router(console)`, built on `console.router()` and named in `routes.py`. Its routes read
  through the same queries as the API's routes and act through the same services, which are members of `Console`.
  Nothing here has SQL.
- `Depends(console.require(Role.READ))` is the caller: whoever is signed in, if the role of the token allows it. For a
  POST it has also checked the form's CSRF token and origin; the fields are in `request.state.form`. The act of an
  admin is in the audit before it happens, as with the API.
- `console.page(request, "name.html", ...)` renders `templates/name.html`, which extends `base.html` and takes tables,
  badges, times, dialogs and charts from `ui.html`. Templates escape everything; only `ui.link` links what comes from
  outside, and only http and https.
- After a POST answer `console.redirect(request, url, notice="...")`, or `console.redirect_to_secret` where there is a
  secret: reloading its page must not act again. Errors (`ServiceError`) become a page by themselves.
- Filters are in the query, read by `pages.parse_query` with the models of the API; the cursor of the next page
  is the API's.
- A region of a page that has an id and the attribute `data-live` is replaced when the feed moves; the block `actions`
  is one. No inline script and no `style` attribute: the policy of pages forbids them.
- The navigation is `pages.NAVIGATION`: a new page adds its line there.
"""
