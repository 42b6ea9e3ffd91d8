/** Wrap a component so that it renders again only if one of its props changed (shallow comparison). */

import { Component, h } from "preact";
import type { ComponentType } from "preact";

export function memo<P extends object>(Inner: ComponentType<P>): ComponentType<P> {
  return class Memo extends Component<P> {
    override shouldComponentUpdate(next: Readonly<P>): boolean {
      const names = new Set([...Object.keys(this.props), ...Object.keys(next)]) as Set<keyof P>;
      return [...names].some((name) => this.props[name] !== next[name]);
    }

    override render() {
      return h(Inner as ComponentType<object>, this.props);
    }
  } as unknown as ComponentType<P>;
}
