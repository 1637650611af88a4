"""The eye on the pages sees what it is there for: without this, its silence would say nothing."""

from conftest import Opens


class TestWatch:
    def test_sees_a_script_that_the_policy_forbids(self, tab: Opens) -> None:
        watched = tab()
        page = watched.open("/sign-in")

        page.evaluate("document.body.append(Object.assign(document.createElement('script'), {text: 'window.ran = 1'}))")

        assert page.evaluate("window.ran") is None
        watched.saw("CSP: script-src")

    def test_sees_a_style_that_the_policy_forbids(self, tab: Opens) -> None:
        watched = tab()
        page = watched.open("/sign-in")

        page.evaluate("document.body.insertAdjacentHTML('beforeend', '<p style=\"color: red\">x</p>')")

        watched.saw("CSP: style-src")

    def test_sees_a_request_elsewhere(self, tab: Opens) -> None:
        watched = tab()
        page = watched.open("/sign-in")

        page.evaluate("fetch('http://127.0.0.1:1/').catch(() => null)")

        watched.saw("CSP: connect-src")

    def test_sees_what_is_missing_and_what_throws(self, tab: Opens) -> None:
        watched = tab()
        page = watched.open("/sign-in")

        page.evaluate("fetch('/static/nothing.js')")
        page.evaluate("setTimeout(() => { throw new Error('lost') })")

        watched.saw("answered 404", "uncaught: lost")
