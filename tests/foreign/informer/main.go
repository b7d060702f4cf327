// Informers of client-go against the cluster of a KUBECONFIG: those that a node agent has, synced by a watch list.
//
// Usage: informer NODE. Prints a line when all are synced, then one per event, until standard input ends. The test reads them.
package main

import (
	"context"
	"fmt"
	"io"
	"os"
	"time"

	corev1 "k8s.io/api/core/v1"
	eventsv1 "k8s.io/api/events/v1"
	metav1 "k8s.io/apimachinery/pkg/apis/meta/v1"
	"k8s.io/apimachinery/pkg/apis/meta/v1/unstructured"
	"k8s.io/apimachinery/pkg/runtime/schema"
	"k8s.io/client-go/dynamic"
	"k8s.io/client-go/dynamic/dynamicinformer"
	"k8s.io/client-go/informers"
	"k8s.io/client-go/kubernetes"
	"k8s.io/client-go/tools/cache"
	"k8s.io/client-go/tools/clientcmd"
)

const patience = 20 * time.Second

func main() {
	if err := run(os.Args[1]); err != nil {
		fmt.Fprintln(os.Stderr, "informer:", err)
		os.Exit(1)
	}
}

func run(node string) error {
	config, err := clientcmd.BuildConfigFromFlags("", os.Getenv("KUBECONFIG"))
	if err != nil {
		return err
	}
	objects, err := dynamic.NewForConfig(config)
	if err != nil {
		return err
	}
	// As node agents do: protobuf where the server has it, JSON else.
	config.AcceptContentTypes = "application/vnd.kubernetes.protobuf,application/json"
	config.ContentType = "application/json"
	client, err := kubernetes.NewForConfig(config)
	if err != nil {
		return err
	}
	version, err := client.Discovery().ServerVersion()
	if err != nil {
		return err
	}
	ctx, cancel := context.WithCancel(context.Background())
	defer cancel()
	started := time.Now()
	synced := []cache.InformerSynced{
		watch(ctx, informer(client, "spec.nodeName="+node, func(f informers.SharedInformerFactory) cache.SharedIndexInformer {
			return f.Core().V1().Pods().Informer()
		})),
		watch(ctx, informer(client, "metadata.name="+node, func(f informers.SharedInformerFactory) cache.SharedIndexInformer {
			return f.Core().V1().Nodes().Informer()
		})),
		watch(ctx, dynamicinformer.NewDynamicSharedInformerFactory(objects, 0).ForResource(schema.GroupVersionResource{
			Group: "crd.k8s.amazonaws.com", Version: "v1alpha1", Resource: "eniconfigs",
		}).Informer()),
	}
	waiting, stop := context.WithTimeout(ctx, patience)
	defer stop()
	if !cache.WaitForCacheSync(waiting.Done(), synced...) {
		return fmt.Errorf("not synced within %v", patience)
	}
	fmt.Printf("synced with %s after %d ms\n", version.GitVersion, time.Since(started).Milliseconds())
	if err := write(ctx, client, node); err != nil {
		return err
	}
	_, err = io.Copy(io.Discard, os.Stdin)
	return err
}

func informer(
	client kubernetes.Interface, selector string, of func(informers.SharedInformerFactory) cache.SharedIndexInformer,
) cache.SharedIndexInformer {
	narrow := informers.WithTweakListOptions(func(options *metav1.ListOptions) { options.FieldSelector = selector })
	return of(informers.NewSharedInformerFactoryWithOptions(client, 0, narrow))
}

func watch(ctx context.Context, informer cache.SharedIndexInformer) cache.InformerSynced {
	tell := func(what string, object any) { fmt.Printf("%s %s\n", what, name(object)) }
	registration, err := informer.AddEventHandler(cache.ResourceEventHandlerFuncs{
		AddFunc:    func(object any) { tell("add", object) },
		UpdateFunc: func(_, object any) { tell("update", object) },
		DeleteFunc: func(object any) { tell("delete", object) },
	})
	if err != nil {
		panic(err)
	}
	go informer.RunWithContext(ctx)
	return registration.HasSynced
}

func name(object any) string {
	if gone, is := object.(cache.DeletedFinalStateUnknown); is {
		object = gone.Obj
	}
	switch object := object.(type) {
	case *corev1.Pod:
		return "pod " + object.Name
	case *corev1.Node:
		return "node " + object.Name + " " + object.Status.Capacity.Pods().String() + " pods"
	case *unstructured.Unstructured:
		return object.GetKind() + " " + object.GetName()
	default:
		return fmt.Sprintf("%T", object)
	}
}

// An event, as a node agent sends it when a permission is missing.
func write(ctx context.Context, client kubernetes.Interface, node string) error {
	_, err := client.EventsV1().Events("kube-system").Create(ctx, &eventsv1.Event{
		ObjectMeta:          metav1.ObjectMeta{GenerateName: "aws-node."},
		EventTime:           metav1.NewMicroTime(time.Now()),
		ReportingController: "aws-node", ReportingInstance: "aws-node-" + node,
		Action: "ec2:CreateNetworkInterface", Reason: "MissingIAMPermissions", Type: corev1.EventTypeWarning,
		Regarding: corev1.ObjectReference{Kind: "Pod", Namespace: "kube-system", Name: "aws-node"},
		Note:      "written by client-go",
	}, metav1.CreateOptions{})
	return err
}
