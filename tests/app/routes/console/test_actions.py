"""What the forms do: marks, rollbacks, the mode; and two operators at once."""

import re
from concurrent.futures import ThreadPoolExecutor

import pytest
from fastapi.testclient import TestClient

from app.storage.quarantine import Mark
from tests.app.console.seed import keep
from tests.app.routes.console.pages import Page, gateway_of, post, token
from tests.app.tiny import form, pngs

MARKS = "/console/quarantine/marks"


def marks(client: TestClient, digests: list[str]) -> list[str | None]:
    store = gateway_of(client).quarantine
    return [mark.value if (mark := store.get(each).mark) else None for each in digests]


class TestMarking:
    def test_one_and_back_again(self, calibrated: TestClient) -> None:
        digests = keep(gateway_of(calibrated), pngs(2))
        fields = {"csrf": token(calibrated), "image": digests[0], "only": digests[0]}
        for mark, after in (("trigger", "trigger"), ("false_alarm", "false_alarm"), ("none", None)):
            answer = post(calibrated, MARKS, {**fields, "mark": mark})
            assert answer.status_code == 303
            assert answer.headers["location"] == f"/console/quarantine/{digests[0]}?marked=1"
            assert marks(calibrated, digests) == [after, None]
        page = Page(calibrated.get(f"/console/quarantine/{digests[0]}?marked=1").text)
        assert "1 image marked." in page.text
        assert "UTC: trigger, by console" in page.text  # what was said before stays readable

    def test_those_that_are_ticked_and_back_to_the_same_page(self, calibrated: TestClient) -> None:
        digests = keep(gateway_of(calibrated), pngs(4))
        fields = {
            "csrf": token(calibrated),
            "image": digests[:3],
            "mark": "trigger",
            "label": "1",
            "before": "77",
        }
        answer = post(calibrated, MARKS, fields)
        assert answer.headers["location"] == "/console/quarantine?label=1&before=77&marked=3"
        assert marks(calibrated, digests) == ["trigger"] * 3 + [None]

    def test_all_that_the_filter_takes_after_a_question(self, calibrated: TestClient) -> None:
        ours = keep(gateway_of(calibrated), pngs(70))
        others = keep(gateway_of(calibrated), pngs(3, seed=5), label=2)
        fields = {"csrf": token(calibrated), "every": "1", "mark": "false_alarm", "label": "1"}
        asked = post(calibrated, MARKS, fields)
        assert asked.status_code == 200
        assert "Mark 70 images?" in Page(asked.text).text
        assert set(marks(calibrated, ours)) == {None}
        question = Page(asked.text)
        assert {name: question.fields[name] for name in fields if name != "csrf"} == {
            name: value for name, value in fields.items() if name != "csrf"
        }
        done = post(calibrated, MARKS, dict(question.fields))
        assert done.headers["location"] == "/console/quarantine?label=1&marked=70"
        assert set(marks(calibrated, ours)) == {"false_alarm"}
        assert marks(calibrated, others) == [None] * 3

    def test_an_incident(self, calibrated: TestClient) -> None:
        digests = keep(gateway_of(calibrated), pngs(65))
        others = keep(gateway_of(calibrated), pngs(3, seed=5), label=2)
        text = calibrated.get("/console/incidents").text
        url = next(u for u in re.findall(r'href="(/console/incidents/1/\d+/\d+)"', text))
        fields = {"csrf": token(calibrated), "mark": "trigger"}
        assert post(calibrated, f"{url}/marks", {**fields, "image": digests[5]}).status_code == 303
        assert marks(calibrated, digests[4:7]) == [None, "trigger", None]
        answer = post(calibrated, f"{url}/marks", {**fields, "every": "1"})
        assert answer.headers["location"] == f"{url}?marked=65"
        assert set(marks(calibrated, digests)) == {"trigger"}
        assert marks(calibrated, others) == [None] * 3

    def test_nonsense_is_refused(self, calibrated: TestClient) -> None:
        digests = keep(gateway_of(calibrated), pngs(1))
        wrong: list[dict[str, object]] = [{"mark": "nonsense"}, {}, {"mark": "trigger", "image": "<b>"}]
        for each in wrong:
            fields = {"csrf": token(calibrated), "image": digests, **each}
            assert post(calibrated, MARKS, fields).status_code == 422
            assert marks(calibrated, digests) == [None]

    def test_images_that_are_gone_are_passed_over(self, calibrated: TestClient) -> None:
        digests = keep(gateway_of(calibrated), pngs(1))
        fields = {"csrf": token(calibrated), "image": [*digests, "0" * 64], "mark": "trigger"}
        assert post(calibrated, MARKS, fields).headers["location"].endswith("marked=1")
        assert gateway_of(calibrated).quarantine.totals().marked == {Mark.TRIGGER: 1}


@pytest.fixture
def three(calibrated: TestClient) -> tuple[TestClient, list[str]]:
    """A gateway with three calibrations, oldest first; the last is active."""
    for seed in (2, 3):
        assert calibrated.post("/calibrate", files=form(pngs(40, seed=seed))).status_code == 201
    return calibrated, [each.id for each in gateway_of(calibrated).store.summaries()][::-1]


class TestRollingBack:
    def test_after_a_question(self, three: tuple[TestClient, list[str]]) -> None:
        client, (first, _, last) = three
        question = Page(client.get(f"/console/calibrations/{first}/activate").text)
        assert question.fields["instead_of"] == last
        answer = post(client, f"/console/calibrations/{first}/activate", dict(question.fields))
        assert answer.headers["location"] == f"/console/calibrations?done={first}"
        assert client.get("/info").json()["calibration"]["id"] == first
        page = Page(client.get(answer.headers["location"]).text)
        assert f"{first} is enforced from the next batch on." in page.text
        assert "activated by console" in page.text
        assert "Roll back to this…" in page.text

    def test_of_two_at_once_one_wins_and_the_other_is_told(self, three: tuple[TestClient, list[str]]) -> None:
        """Both were asked while the last calibration was active."""
        client, (first, second, last) = three
        fields = {"csrf": token(client), "instead_of": last}
        with ThreadPoolExecutor(2) as pool:
            answers = list(
                pool.map(
                    lambda id: post(client, f"/console/calibrations/{id}/activate", fields), [first, second]
                )
            )
        assert sorted(each.status_code for each in answers) == [303, 409]
        winner = [id for id, each in zip([first, second], answers, strict=True) if each.status_code == 303]
        assert [client.get("/info").json()["calibration"]["id"]] == winner
        history = gateway_of(client).store.history()
        assert [each.calibration_id for each in history] == [*winner, last, second, first]
        (refused,) = [each for each in answers if each.status_code == 409]
        assert "Another calibration has been activated meanwhile" in Page(refused.text).text

    def test_what_does_not_fit_is_not_offered(self, three: tuple[TestClient, list[str]]) -> None:
        client, (first, _, last) = three
        firewall = gateway_of(client).firewall
        firewall.fits = lambda _: "it was made for another classifier"  # type: ignore[method-assign]
        page = Page(client.get(f"/console/calibrations/{first}/activate").text)
        assert "it was made for another classifier" in page.text
        assert "instead_of" not in page.fields
        fields = {"csrf": token(client), "instead_of": last}
        assert post(client, f"/console/calibrations/{first}/activate", fields).status_code == 409

    def test_an_unknown_one(self, three: tuple[TestClient, list[str]]) -> None:
        client, (_, _, last) = three
        fields = {"csrf": token(client), "instead_of": last}
        assert post(client, "/console/calibrations/none/activate", fields).status_code == 404


class TestMode:
    def test_to_monitor_and_back(self, calibrated: TestClient) -> None:
        for other in ("monitor", "enforce"):
            question = Page(calibrated.get("/console/mode").text)
            assert question.fields["to"] == other
            assert post(calibrated, "/console/mode", dict(question.fields)).status_code == 303
            assert calibrated.get("/info").json()["mode"] == other

    def test_who_looked_too_early_is_told(self, calibrated: TestClient) -> None:
        """Two operators want to switch to monitor mode; the second does not switch back by mistake."""
        question = dict(Page(calibrated.get("/console/mode").text).fields)
        assert post(calibrated, "/console/mode", question).status_code == 303
        again = post(calibrated, "/console/mode", question)
        assert again.status_code == 409
        assert "somebody else has switched it" in Page(again.text).text
        assert calibrated.get("/info").json()["mode"] == "monitor"

    def test_there_is_nothing_to_enforce_before_a_calibration(self, client: TestClient) -> None:
        fields = {"csrf": token(client)}
        assert (
            post(client, "/console/mode", {**fields, "from": "enforce", "to": "monitor"}).status_code == 303
        )
        page = Page(client.get("/console/mode").text)
        assert "There is nothing to enforce yet" in page.text
        assert "to" not in page.fields
        answer = post(client, "/console/mode", {**fields, "from": "monitor", "to": "enforce"})
        assert answer.status_code == 409
        assert client.get("/info").json()["mode"] == "monitor"

    def test_nonsense_is_refused(self, client: TestClient) -> None:
        wrong: list[dict[str, object]] = [{}, {"to": "off", "from": "enforce"}, {"to": "monitor"}]
        for each in wrong:
            assert post(client, "/console/mode", {"csrf": token(client), **each}).status_code == 422
