"""What a team shares: the queue, its workers, projects, storage, webhooks."""

from __future__ import annotations

from typing import Annotated

import typer

from vitpress import team_tables
from vitpress.cli.options import Json, Url
from vitpress.cli.output import DETACHED, answer, end, print_json, say, show
from vitpress.client import Client

app = typer.Typer()
projects = typer.Typer(help="Projects: your jobs, grouped.", no_args_is_help=True)
webhooks = typer.Typer(help="Webhooks: told when jobs start and end.", no_args_is_help=True)
app.add_typer(projects, name="projects")
app.add_typer(webhooks, name="webhooks")

WorkerName = Annotated[str, typer.Argument(metavar="NAME", help="From `vitpress workers`.")]
WebhookId = Annotated[str, typer.Argument(metavar="ID", help="From `vitpress webhooks list`.")]
Events = Annotated[list[str] | None, typer.Option("--event", help="job.succeeded and the like. May be repeated.")]


@app.command()
def queue(url: Url = None, as_json: Json = False) -> None:
    """Show where your jobs are in the queue, and when they are likely to start and end."""
    with Client(url) as client:
        found = client.workers.queue()
    if as_json:
        print_json(found)
        return
    others = sum(share.queued for share in found.others)
    say(f"you have {found.yours.running} running and {found.yours.queued} waiting; others {others} waiting")
    if found.jobs:
        show(team_tables.queue_table(found))


@app.command()
def workers(url: Url = None, as_json: Json = False) -> None:
    """List the workers and what they do."""
    with Client(url) as client:
        found = client.workers.list()
    answer(found, team_tables.workers_table(found) if found else "no workers", as_json)


@app.command()
def drain(worker: WorkerName, url: Url = None, as_json: Json = False) -> None:
    """Let a worker finish what it has, and take no more; needs an admin key."""
    with Client(url) as client:
        found = client.workers.drain(worker)
    answer(found, f"{found.name} takes no more jobs" + (", and still runs one" if found.busy else ""), as_json)


@app.command()
def resume(worker: WorkerName, url: Url = None, as_json: Json = False) -> None:
    """Let a drained worker take jobs again; needs an admin key."""
    with Client(url) as client:
        found = client.workers.resume(worker)
    answer(found, f"{found.name} takes jobs", as_json)


@app.command()
def storage(url: Url = None, as_json: Json = False) -> None:
    """Show how much you have stored."""
    with Client(url) as client:
        found = client.storage()
    answer(found, team_tables.storage_table(found), as_json)


@projects.command("list")
def list_projects(url: Url = None, as_json: Json = False) -> None:
    """List your projects."""
    with Client(url) as client:
        found = list(client.projects.list())
    answer(found, "\n".join(project.name for project in found), as_json)


@projects.command("create")
def create_project(
    name: Annotated[str, typer.Argument(help="Among yours.")], url: Url = None, as_json: Json = False
) -> None:
    """Make a project."""
    with Client(url) as client:
        made = client.projects.create(name)
    answer(made, f"project {made.name}", as_json)


@projects.command("watch")
def watch_project(
    name: Annotated[str, typer.Argument(help="One of yours.")] = "default", url: Url = None, as_json: Json = False
) -> None:
    """Show what happens to all jobs of a project, until Ctrl-C."""
    with Client(url) as client:
        try:
            for event in client.project_events(name):
                if as_json:
                    print_json(event)
                elif event.kind != "progress":
                    say(f"{event.job_id} {event.state}" + (f", {event.stage}" if event.stage else ""))
        except KeyboardInterrupt:
            end("detached", DETACHED)


@webhooks.command("list")
def list_webhooks(url: Url = None, as_json: Json = False) -> None:
    """List your webhooks."""
    with Client(url) as client:
        found = list(client.webhooks.list())
    answer(found, team_tables.webhooks_table(found) if found else "no webhooks", as_json)


@webhooks.command("create")
def create_webhook(
    target: Annotated[str, typer.Argument(metavar="URL", help="Where messages go.")],
    event: Events = None,
    project: Annotated[str | None, typer.Option(help="Tell of that project's jobs alone.")] = None,
    url: Url = None,
    as_json: Json = False,
) -> None:
    """Make a webhook; its secret is shown this once."""
    with Client(url) as client:
        made = client.webhooks.create(target, events=event, project=project)
    answer(made, f"{made.secret}\nkeep it: messages are signed with it. The webhook's id is {made.id}", as_json)


@webhooks.command("test")
def try_webhook(webhook: WebhookId, url: Url = None, as_json: Json = False) -> None:
    """Send a message about nothing."""
    with Client(url) as client:
        sent = client.webhooks.test(webhook)
    answer(sent, f"message {sent.id} is on its way; see: vitpress webhooks log {webhook}", as_json)


@webhooks.command("log")
def log_webhook(webhook: WebhookId, url: Url = None, as_json: Json = False) -> None:
    """List what it was told, newest first."""
    with Client(url) as client:
        found = list(client.webhooks.deliveries(webhook))
    answer(found, team_tables.deliveries_table(found) if found else "nothing yet", as_json)


@webhooks.command("delete")
def delete_webhook(webhook: WebhookId, url: Url = None, as_json: Json = False) -> None:
    """Delete a webhook."""
    with Client(url) as client:
        client.webhooks.delete(webhook)
    answer({"deleted": webhook}, f"webhook {webhook} deleted", as_json)
