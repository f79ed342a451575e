// Command netd is the pod network of a cluster whose nodes share one network segment, as those of kind do: it
// writes the CNI configuration of its node, from the addresses that Kubernetes gave the node for its pods, and
// keeps a route to the pods of every other node through that node's own address.
//
// Pods reach pods, nodes and services, with their own address as the source. Nothing is translated, so nothing
// outside the cluster answers them, and network policies have no effect.
package main

import (
	"bytes"
	"context"
	"crypto/tls"
	"crypto/x509"
	"encoding/json"
	"errors"
	"fmt"
	"log"
	"net"
	"net/http"
	"os"
	"os/signal"
	"path/filepath"
	"syscall"
	"time"

	"github.com/vishvananda/netlink"
)

const (
	account    = "/var/run/secrets/kubernetes.io/serviceaccount"
	configFile = "/etc/cni/net.d/10-maplatency.conflist"
	period     = 2 * time.Second
)

type node struct {
	Metadata struct{ Name string }
	Spec     struct{ PodCIDR string }
	Status   struct {
		Addresses []struct{ Type, Address string }
	}
}

func main() {
	log.SetFlags(0)
	name, server := os.Getenv("NODE_NAME"), os.Getenv("CONTROL_PLANE_ENDPOINT")
	if name == "" || server == "" {
		log.Fatal("NODE_NAME and CONTROL_PLANE_ENDPOINT must be set")
	}
	client, err := apiClient()
	if err != nil {
		log.Fatal(err)
	}
	ctx, stop := signal.NotifyContext(context.Background(), syscall.SIGTERM, os.Interrupt)
	defer stop()
	ticker := time.NewTicker(period)
	// The same complaint every two seconds would hide others.
	said := ""
	for {
		text := "in order"
		if err := bringUp(ctx, client, server, name); err != nil {
			text = err.Error()
		}
		if text != said {
			log.Print(text)
			said = text
		}
		select {
		case <-ctx.Done():
			return
		case <-ticker.C:
		}
	}
}

func apiClient() (*http.Client, error) {
	pem, err := os.ReadFile(filepath.Join(account, "ca.crt"))
	if err != nil {
		return nil, err
	}
	authorities := x509.NewCertPool()
	if !authorities.AppendCertsFromPEM(pem) {
		return nil, errors.New("ca.crt of the service account holds no certificate")
	}
	transport := &http.Transport{TLSClientConfig: &tls.Config{RootCAs: authorities}}
	return &http.Client{Timeout: 5 * time.Second, Transport: transport}, nil
}

// bringUp does all there is to do once, and fails if something is not there yet.
func bringUp(ctx context.Context, client *http.Client, server, self string) error {
	nodes, err := list(ctx, client, server)
	if err != nil {
		return fmt.Errorf("list the nodes: %w", err)
	}
	var failed []error
	for _, node := range nodes {
		_, pods, err := net.ParseCIDR(node.Spec.PodCIDR)
		switch {
		case err != nil:
			err = errors.New("it has no addresses for pods yet")
		case node.Metadata.Name == self:
			err = writeConfig(pods)
		default:
			err = route(pods, node)
		}
		if err != nil {
			failed = append(failed, fmt.Errorf("node %s: %w", node.Metadata.Name, err))
		}
	}
	return errors.Join(failed...)
}

func list(ctx context.Context, client *http.Client, server string) ([]node, error) {
	// The token is replaced from time to time, so it is read each time.
	token, err := os.ReadFile(filepath.Join(account, "token"))
	if err != nil {
		return nil, err
	}
	request, err := http.NewRequestWithContext(ctx, http.MethodGet, "https://"+server+"/api/v1/nodes", nil)
	if err != nil {
		return nil, err
	}
	request.Header.Set("Authorization", "Bearer "+string(bytes.TrimSpace(token)))
	answer, err := client.Do(request)
	if err != nil {
		return nil, err
	}
	defer answer.Body.Close()
	if answer.StatusCode != http.StatusOK {
		return nil, errors.New(answer.Status)
	}
	var nodes struct{ Items []node }
	err = json.NewDecoder(answer.Body).Decode(&nodes)
	return nodes.Items, err
}

// writeConfig lets containerd connect pods: each by a pair of interfaces, with an address out of pods.
func writeConfig(pods *net.IPNet) error {
	type object = map[string]any
	config, err := json.Marshal(object{
		"cniVersion": "0.4.0",
		"name":       "maplatency",
		"plugins": []object{
			{"type": "ptp", "ipam": object{
				"type":    "host-local",
				"ranges":  [][]object{{{"subnet": pods.String()}}},
				"routes":  []object{{"dst": "0.0.0.0/0"}},
				"dataDir": "/run/maplatency-netd",
			}},
			{"type": "portmap", "capabilities": object{"portMappings": true}},
		},
	})
	if err != nil {
		return err
	}
	if old, err := os.ReadFile(configFile); err == nil && bytes.Equal(old, config) {
		return nil
	}
	// containerd watches the folder, and must not read half a file.
	if err := os.WriteFile(configFile+".new", config, 0o644); err != nil {
		return err
	}
	return os.Rename(configFile+".new", configFile)
}

func route(pods *net.IPNet, node node) error {
	for _, address := range node.Status.Addresses {
		gateway := net.ParseIP(address.Address)
		if address.Type == "InternalIP" && gateway.To4() != nil {
			return netlink.RouteReplace(&netlink.Route{Dst: pods, Gw: gateway})
		}
	}
	return errors.New("it has no IPv4 address yet")
}
