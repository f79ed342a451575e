// The first process of every pod: it holds the namespaces of the pod, and reaps what its containers leave behind
// where they share their processes.

#include <signal.h>
#include <sys/wait.h>
#include <unistd.h>

static void end(int signal_number)
{
	_exit(signal_number == SIGTERM ? 0 : 1);
}

static void reap(int signal_number)
{
	(void)signal_number;
	while (waitpid(-1, NULL, WNOHANG) > 0)
		;
}

int main(void)
{
	signal(SIGCHLD, reap);
	signal(SIGINT, end);
	signal(SIGTERM, end);
	for (;;)
		pause();
}
